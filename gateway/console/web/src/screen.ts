/** What every screen is: an element, shown or not, that follows the model. */

import type { Change, Model } from "./model";
import type { Stream } from "./stream";

export interface Context {
  model: Model;
  stream: Stream;
  /** Say something to the operator, aloud too. */
  announce(text: string): void;
  go(hash: string): void;
}

export interface Screen {
  readonly root: HTMLElement;
  /** Called when the screen appears, and when its part of the address changes. */
  show(argument: string): void;
  hide(): void;
  /** Called at most once a frame while the screen is shown, and at least twice a second, for the ages. */
  update(change: Change): void;
  /** Take a key; true if it meant something here. */
  key(event: KeyboardEvent): boolean;
}
