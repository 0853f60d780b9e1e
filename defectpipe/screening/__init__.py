"""The network that screens candidates and corrects their boxes."""
