class AppiumBy:
    ACCESSIBILITY_ID = "accessibility id"
