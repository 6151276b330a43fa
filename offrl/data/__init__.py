"""Data sets: cards, loaders, the cache, whole episodes in memory-mapped arrays."""
