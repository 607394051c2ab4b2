import ctypes, os
for path in ("/dev/shm/deltaic_marker", "/dev/deltaic_marker", "/dev/mqueue/deltaic_marker", "/run/deltaic_marker"):
    try:
        open(path, "w").write("x")
        print("WROTE", path)
    except OSError:
        pass
libc = ctypes.CDLL(None)
print(libc.shmget(0x6465, 4096, 0o1777), libc.msgget(0x6465, 0o1777), libc.semget(0x6465, 1, 0o1777))
try:
    from multiprocessing.shared_memory import SharedMemory
    SharedMemory("deltaic_marker", create=True, size=4096)
except BaseException:
    pass
