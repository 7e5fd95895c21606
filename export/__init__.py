"""`python export/ --model runet`: from trained weights to a checked model in a Triton repository."""
