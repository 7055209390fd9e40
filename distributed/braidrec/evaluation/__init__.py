"""Full-ranking evaluation in plain torch and NumPy.

`ranker` is what is evaluated, `held_out` what it is judged by, `full_ranking` makes the lists, `metrics` measure them,
`evaluator` puts these together for shards of users, and `slices` look at parts of the users and items.
"""
