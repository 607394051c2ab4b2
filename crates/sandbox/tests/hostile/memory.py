blocks = []
while True:
    blocks.append(bytes(128 << 20))
