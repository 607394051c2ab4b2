import ctypes, os, shutil, sys, time
def attempt(what):
    try:
        what()
        return True
    except (OSError, AttributeError, OverflowError):
        return False
libc = ctypes.CDLL(None)
attempt(lambda: shutil.copy(sys.executable, "/tmp/python"))
attempt(lambda: os.chmod("/tmp/python", 0o6755))
attempt(lambda: os.chmod("@VICTIM@/secret", 0o6777))
attempt(lambda: os.chmod(sys.executable, 0o6777))
attempt(lambda: os.chown("/tmp/python", 0, 0))
for call in ("setuid", "setgid", "seteuid", "setegid"):
    if attempt(lambda: getattr(os, call)(0)):
        print("GAINED", call)
if attempt(lambda: os.setgroups([0])) or attempt(lambda: os.setresuid(0, 0, 0)):
    print("GAINED groups or user")
if attempt(lambda: os.chroot("/tmp")):
    print("GAINED chroot")
for name, arguments in (("unshare", (0x10000000,)), ("unshare", (0x00020000,)), ("mount", (b"none", b"/tmp", b"tmpfs", 0, None)), ("umount2", (b"/tmp", 2)),
                        ("setns", (0, 0)), ("sethostname", (b"x", 1)), ("reboot", (0,)), ("swapon", (b"/tmp/x", 0)), ("acct", (b"/tmp/x",)), ("iopl", (3,))):
    if hasattr(libc, name) and getattr(libc, name)(*arguments) == 0:
        print("GAINED", name)
# keyctl, add_key, bpf, perf_event_open, io_uring_setup, userfaultfd, init_module, kexec_load, open_by_handle_at, name_to_handle_at, clone3
for number in (250, 248, 321, 298, 425, 323, 175, 246, 304, 303, 435):
    if libc.syscall(number, 0, 0, 0, 0, 0) >= 0:
        print("GAINED system call", number)
for flags in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
    if libc.syscall(56, flags | 17, 0, 0, 0, 0) >= 0:
        print("GAINED clone", hex(flags))
