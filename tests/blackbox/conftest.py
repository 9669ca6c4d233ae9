"""The checks are plain modules, so pytest has to be told that their asserts explain themselves."""

import pytest

for _module in ("target", "creating", "appending", "contending", "hostile", "refusing"):
    pytest.register_assert_rewrite(f"tests.blackbox.{_module}")
