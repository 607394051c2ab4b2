try:
    raise KeyboardInterrupt
finally:
    pass
