"""Several representations of one thing (an ID, an image, a text: the strands) → one.

Timing (before or after propagation) is the caller's; here is the strategy: how strands are weighted, how the weighted
ones are combined, and what maps the result. Any number of strands, each by its name; a row may lack some of them.
"""
