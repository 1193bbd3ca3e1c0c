"""Caption requests that are worked off later: ``store`` keeps them, ``worker`` does them."""
