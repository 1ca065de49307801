/**
 * CORE. Ordered things of a publisher: a doubly linked list whose nodes leave from anywhere, and a
 * heap of deadlines whose entries can be moved and removed.
 */

/** A node of a list, or its head. What is in no list points at itself. */
export class ListNode {
  before: ListNode = this;
  after: ListNode = this;

  get alone(): boolean {
    return this.after === this;
  }

  /** Of a head: the node becomes the last one. */
  push(node: ListNode): void {
    node.before = this.before;
    node.after = this;
    this.before.after = node;
    this.before = node;
  }

  leave(): void {
    this.before.after = this.after;
    this.after.before = this.before;
    this.before = this.after = this;
  }
}

/** A moment in a {@link Heap}. */
export class HeapNode<T> {
  due = 0;
  index = -1;
  constructor(readonly owner: T) {}
}

/** Deadlines, the earliest first. */
export class Heap<T> {
  private readonly nodes: HeapNode<T>[] = [];

  /** Puts the node there, or moves it. */
  set(node: HeapNode<T>, due: number): void {
    node.due = due;
    if (node.index < 0) {
      node.index = this.nodes.length;
      this.nodes.push(node);
      this.rise(node);
      return;
    }
    this.rise(node);
    this.sink(node);
  }

  remove(node: HeapNode<T>): void {
    if (node.index < 0) return;
    const last = this.nodes.pop() as HeapNode<T>;
    if (last !== node) {
      this.nodes[node.index] = last;
      last.index = node.index;
      this.rise(last);
      this.sink(last);
    }
    node.index = -1;
  }

  /** The earliest deadline; Infinity: none. */
  next(): number {
    return this.nodes[0]?.due ?? Infinity;
  }

  /** Takes one whose deadline has come. */
  popDue(now: number): T | null {
    const first = this.nodes[0];
    if (!first || first.due > now) return null;
    this.remove(first);
    return first.owner;
  }

  private swap(a: HeapNode<T>, b: HeapNode<T>): void {
    const at = a.index;
    a.index = b.index;
    b.index = at;
    this.nodes[a.index] = a;
    this.nodes[b.index] = b;
  }

  private rise(node: HeapNode<T>): void {
    while (node.index > 0) {
      const parent = this.nodes[(node.index - 1) >> 1] as HeapNode<T>;
      if (parent.due <= node.due) return;
      this.swap(node, parent);
    }
  }

  private sink(node: HeapNode<T>): void {
    for (;;) {
      const left = this.nodes[2 * node.index + 1];
      const right = this.nodes[2 * node.index + 2];
      let least = node;
      if (left && left.due < least.due) least = left;
      if (right && right.due < least.due) least = right;
      if (least === node) return;
      this.swap(node, least);
    }
  }
}
