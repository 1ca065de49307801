// Figures in words.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `1536` is `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit > 0 && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** `0.999` is `99 %`: 100 only when it is whole. */
export const formatRatio = (ratio: number): string => `${Math.floor(ratio * 100)} %`;
