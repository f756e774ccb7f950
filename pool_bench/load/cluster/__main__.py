"""`python -m pool_bench.load.cluster` prints where the settings for schedulers and workers are."""

from pool_bench.load.cluster import SETTINGS_FILE

if __name__ == "__main__":
    print(SETTINGS_FILE)
