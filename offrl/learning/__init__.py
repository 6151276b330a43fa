"""What algorithms are made of: batches, networks with a replica axis, losses, the contract."""
