"""Encoders of the user–item graph: input rows of a neighbourhood → representations of its seeds."""
