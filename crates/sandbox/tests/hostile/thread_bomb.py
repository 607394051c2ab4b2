import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(100,)).start()
    except BaseException:
        pass
