"""The version of offrl. It stands here so that any part can read it without importing the face."""

__version__ = "0.1.0"
