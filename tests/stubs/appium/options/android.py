class UiAutomator2Options:
    udid = ""
