"""Building blocks of networks: attention, time embeddings, norms, the learned weight over time."""
