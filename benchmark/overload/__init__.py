"""The real service under more load than it can bear: `python -m benchmark overload`."""
