"""The conformance kit for backends, fault injection, and a client in memory.

For the tests of tusserve itself, of people's own storages and stores, and of host applications.
"""
