"""As much of Appium's client as the example calls; the phone is the JSON file at $PHONE."""
