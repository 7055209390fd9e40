"""Raw media → feature vectors: read a manifest, decode, encode in actors, write `features/<modality>/`."""
