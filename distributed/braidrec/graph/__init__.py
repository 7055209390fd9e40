"""Everything that touches DGL: build graphs, share them between processes, sample, propagate."""
