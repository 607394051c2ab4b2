import os
for i in range(64):
    try:
        with open(f"/tmp/huge{i}", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        last = error
try:
    with open("/tmp/sparse", "wb") as file:
        file.truncate(1 << 40)
    print("SPARSE")
except OSError:
    pass
