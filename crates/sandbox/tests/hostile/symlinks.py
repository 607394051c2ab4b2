import os, shutil
def attempt(what):
    try:
        return what()
    except OSError:
        return None
attempt(lambda: os.symlink("@VICTIM@", "/tmp/folder"))
attempt(lambda: os.symlink("@VICTIM@/secret", "/tmp/file"))
attempt(lambda: os.symlink("/proc/self/root", "/tmp/root"))
attempt(lambda: os.link("@VICTIM@/secret", "/tmp/hard"))
for path in ("/tmp/folder/secret", "/tmp/file", "/tmp/root@VICTIM@/secret", "/tmp/hard", "/tmp/../../..@VICTIM@/secret"):
    print(attempt(lambda: open(path).read()))
    attempt(lambda: open(path, "w").write("overwritten"))
attempt(lambda: open("/tmp/folder/deltaic_marker", "w").write("x"))
attempt(lambda: shutil.rmtree("/tmp/folder/"))
attempt(lambda: os.rename("/tmp", "/deltaic_marker"))
attempt(lambda: os.rmdir("/tmp"))
