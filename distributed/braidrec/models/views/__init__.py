"""Views: a tensor of features or representations, perturbed. Used on purpose, so also outside training mode.

Random numbers come from torch's own seeded generator. The input is left as it is.
"""
