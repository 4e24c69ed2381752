"""The domain: frozen values, policies and the error tree. Imports nothing that does I/O."""
