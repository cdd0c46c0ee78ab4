"""Arrays in files: .npy, .npz, .safetensors and .csv, mapped where they lie. Imports no torch, and reads no pickle."""
