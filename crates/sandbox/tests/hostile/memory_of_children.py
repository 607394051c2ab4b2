import mmap, os
for _ in range(40):
    try:
        os.fork()
    except OSError:
        break
try:
    libc_block = mmap.mmap(-1, 3 << 30)
except (OSError, ValueError):
    pass
for name in ("/dev/shm/deltaic_marker", "/tmp/deltaic_marker"):
    try:
        with open(name, "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        pass
if hasattr(os, "memfd_create"):
    try:
        fd = os.memfd_create("deltaic_marker")
        print("MEMFD")
    except OSError:
        pass
