"""The soak: a daemon under mixed load for long, what it holds sampled each second, and the judge of flatness."""
