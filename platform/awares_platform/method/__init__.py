"""The method's parts as the configuration names them."""
