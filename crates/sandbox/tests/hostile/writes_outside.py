import os, pathlib
folders = ["@VICTIM@", "/", "/etc", "/root", "/home", "/var/tmp", "/usr", "/usr/lib", "/dev", "/run", "/proc", "/sys", "/tmp/..", "/tmp/../..", os.path.dirname(os.__file__)]
for folder in folders:
    for attempt in (
        lambda: pathlib.Path(folder, "deltaic_marker").write_text("x"),
        lambda: os.mkdir(os.path.join(folder, "deltaic_marker_folder")),
        lambda: os.symlink("/etc", os.path.join(folder, "deltaic_marker_link")),
        lambda: os.mknod(os.path.join(folder, "deltaic_marker_node")),
        lambda: pathlib.Path(folder, "secret").write_text("overwritten"),
        lambda: os.truncate(os.path.join(folder, "secret"), 0),
        lambda: os.unlink(os.path.join(folder, "secret")),
        lambda: os.rename(os.path.join(folder, "secret"), os.path.join(folder, "deltaic_marker")),
    ):
        try:
            attempt()
        except OSError:
            pass
for name in (os.__file__, "/program.py"):
    try:
        open(name, "a").write("# deltaic_marker")
        print("WROTE", name)
    except OSError:
        pass
