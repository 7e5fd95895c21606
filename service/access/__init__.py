"""Who may call, and how much: certificates, tokens and keys, and each client's limits."""
