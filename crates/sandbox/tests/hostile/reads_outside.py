import os
def show(path):
    try:
        with open(path, "rb") as file:
            print(path, file.read(4000))
    except OSError:
        pass
for path in ("@VICTIM@/secret", "/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/proc/self/environ", "/proc/1/environ", "/proc/mounts",
             "/proc/self/root@VICTIM@/secret", "/proc/1/root@VICTIM@/secret", "/proc/@SENTINEL@/environ", "/dev/mem", "/dev/kmsg", "/dev/vda"):
    show(path)
for pid in range(1, 5000):
    show(f"/proc/{pid}/environ")
for top in ("/", "/root", "/home", "@VICTIM@", "/proc", "/sys"):
    for folder, _, files in os.walk(top):
        if not folder.startswith("/usr") and "python" not in folder:
            for name in files[:10]:
                show(os.path.join(folder, name))
for fd in range(3, 300):
    try:
        os.fstat(fd)
        for part in ("secret", "../secret", "@VICTIM@/secret"):
            os.close(os.open(part, os.O_RDONLY, dir_fd=fd))
            print("deltaic_secret opened through", fd)
    except OSError:
        pass
