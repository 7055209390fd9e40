"""Recommenders for one device. They know neither Ray nor MLflow nor configuration files."""
