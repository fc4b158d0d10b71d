/** The ring: made here, no sound file. Silent until somebody has touched the page once, as browsers have it. */

const RING = 1.2;
const PAUSE = 2.2;

export class Ringer {
  private context: AudioContext | null = null;
  private timer = 0;

  /** To be called when the person touches the page: from then on the browser lets it sound. */
  wake(): void {
    this.context ??= new AudioContext();
    if (this.context.state === "suspended") void this.context.resume().catch(() => undefined);
  }

  start(): void {
    if (this.timer) return;
    this.wake();
    this.ring();
    this.timer = window.setInterval(() => this.ring(), (RING + PAUSE) * 1000);
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = 0;
  }

  private ring(): void {
    const context = this.context;
    if (!context || context.state !== "running") return;
    const now = context.currentTime;
    const volume = context.createGain();
    volume.connect(context.destination);
    volume.gain.setValueAtTime(0, now);
    for (let beat = 0; beat < 12; beat++) volume.gain.linearRampToValueAtTime(beat % 2 ? 0.03 : 0.12, now + (beat + 1) * (RING / 13));
    volume.gain.linearRampToValueAtTime(0, now + RING);
    for (const pitch of [440, 554]) {
      const tone = context.createOscillator();
      tone.frequency.value = pitch;
      tone.connect(volume);
      tone.start(now);
      tone.stop(now + RING);
    }
  }
}
