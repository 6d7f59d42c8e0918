"""Do crystals keep their space group when a model relaxes them?"""
