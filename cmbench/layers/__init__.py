"""Parts that networks are built of: attention, embeddings of times, norms, the learned weight of a time."""
