"""Where bytes are kept: one module a backend, none of which knows another."""
