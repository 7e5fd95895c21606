"""What a frame costs through the service, by every way in, beside its peers."""
