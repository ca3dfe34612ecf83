// As much of Playwright as the example calls: a page that knows who has its cookie.
import { strict as assert } from "node:assert";

class Page {
  typed = {};

  constructor(owner) {
    this.owner = owner;
  }

  context = () => this.owner;

  async goto(url) {
    assert.equal(url, process.env.PAGE);
  }

  getByLabel(label) {
    return { fill: async (text) => void (this.typed[label] = text) };
  }

  getByRole(role, { name }) {
    assert.deepEqual([role, name], ["button", "Log in"]);
    return { click: async () => this.owner.logIn(this.typed) };
  }

  getByText(text) {
    assert.equal(text, "Welcome");
    const isVisible = async () => this.owner.cookies.length > 0;
    return { isVisible, waitFor: async () => assert(await isVisible()) };
  }
}

class Context {
  constructor({ storageState } = {}) {
    this.cookies = storageState?.cookies ?? [];
  }

  logIn({ User, Password }) {
    assert.equal(Password, "s3cret");
    this.cookies = [{ name: "session", value: User, domain: "shop.example", path: "/", expires: -1,
      httpOnly: true, secure: true, sameSite: "Lax" }];
  }

  close = async () => {};
  newPage = async () => new Page(this);
  storageState = async () => ({ cookies: this.cookies, origins: [] });
}

export const chromium = {
  launch: async () => ({ newContext: async (options) => new Context(options), close: async () => {} }),
};
