"""Self-supervised tasks of a composed model: what is compared with what, on which nodes, by which objective."""
