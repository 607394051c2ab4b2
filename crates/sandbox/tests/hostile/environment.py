import os, sys
print(dict(os.environ), sys.argv, getattr(sys, "orig_argv", None))
