"""Teacher, student, twin and adapter."""

import logging

# At import bitsandbytes warns that an optional bfloat16 kernel is absent; `compress` does not use it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
