"""Search: from query vectors to positions of train vectors, best first. The only place that imports faiss."""
