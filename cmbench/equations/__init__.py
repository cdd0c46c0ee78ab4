"""The papers' equations as functions on tensors: data (B, ...), time (B,), float64 in, float64 out."""
