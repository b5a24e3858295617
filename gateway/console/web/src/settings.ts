/** What this browser remembers for its operator. A browser that refuses storage forgets, and works. */

export function recall(name: string): string | null {
  try {
    return localStorage.getItem(`corridor.${name}`);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`corridor.${name}`, value);
  } catch {
    return;
  }
}
