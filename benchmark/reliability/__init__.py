"""The real service while its parts fail (`python -m benchmark chaos`), and for a long time (`benchmark soak`)."""
