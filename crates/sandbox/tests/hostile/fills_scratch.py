import os
os.makedirs("/tmp/deep")
count = 0
try:
    while True:
        open(f"/tmp/deep/{count}", "w").close()
        count += 1
except OSError:
    print("files", count)
