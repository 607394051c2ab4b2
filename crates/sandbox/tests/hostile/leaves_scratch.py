import os
print("found", os.listdir("/tmp"))
open("/tmp/deltaic_left", "w").write("deltaic_secret of the run before")
